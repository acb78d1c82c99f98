"""What a measure asks for, and jobs and plans that are checked against it before anything runs."""
