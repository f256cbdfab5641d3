"""Where cells run: forked from a server on this machine, in processes of their own, or on Slurm."""
