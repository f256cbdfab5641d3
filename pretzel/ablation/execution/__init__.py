"""Cells on their way: started, watched, checkpointed, stopped, continued."""
