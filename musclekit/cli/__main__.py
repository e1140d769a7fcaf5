"""``python -m musclekit.cli``: the command, where no script was installed."""

from musclekit.cli import main

if __name__ == "__main__":
    main()
