"""Weights of the public TarFlow and STARFlow models in our blocks.

:func:`~pretzel.interop.checkpoint.read_checkpoint` reads a file;
:func:`~pretzel.interop.tarflow.read_tarflow` and :func:`~pretzel.interop.starflow.read_starflow`
turn its tensors into the configuration and the weights of our blocks, and account for every key;
``pretzel import`` writes both as a run that ``fit``, ``test`` and ``sample`` take as any other.
"""
