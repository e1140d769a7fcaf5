"""Where the thigh is in a scan: body, legs, femur, and the invertible frames between them."""
