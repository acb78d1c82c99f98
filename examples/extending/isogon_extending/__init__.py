"""One of each: what another package can add to isogon, one file per thing."""
