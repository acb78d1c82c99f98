"""Weight symmetries: which axes of which weights can be permuted and scaled together."""
