"""The line between training and measuring: what changes weights, and what only changes figures.

A grid cell has two identities (:mod:`pretzel.ablation.identity.essence`). A part that derives from
:class:`Measures` belongs to the second one wherever it stands in a configuration: exchanging it
measures finished checkpoints anew and trains nothing again.
"""


class Measures:
    """A part that changes what is measured, sampled or shown, and never the weights.

    It draws no numbers from the global random state while a model trains, and changes no parameter,
    gradient, optimizer or learning rate.
    """
