"""From labelled images of one modality to a segmenter of another: how it is learnt, stage by stage (Yang et al.)."""
