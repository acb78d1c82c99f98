"""Boundary: the exact decision boundary of a network on a plane, traced without its regions.

`measure.boundary` looks at a class image (`scan`), starts where the class changes and follows
the boundary from region to region (`trace`): in each region the network is affine (`frozen`), so
that the boundary is a line, which ends where the first unit changes its piece (`exits`).
`joining` makes curves of the pieces; `certificate` checks them against the network itself.
"""
