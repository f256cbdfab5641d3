"""From a grid file to a plan: every run parsed, built, sized and compared before one trains."""
