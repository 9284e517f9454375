"""``python -m gptkit``: the command, for launchers that start a module in each process (torchrun)."""

from gptkit.cli.main import main

if __name__ == "__main__":
    main()
