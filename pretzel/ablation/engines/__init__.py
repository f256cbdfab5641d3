"""Where runs are executed: forked on this machine, in processes of their own, or on Slurm."""
