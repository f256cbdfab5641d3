"""From a grid file to cells: every one parsed, built, sized and compared before one trains."""
