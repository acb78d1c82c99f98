"""One lowering rule per ATen operation; a rule from another package joins by `lowers`."""
