"""What the tests share: a server that shows exactly what arrived, and answers exactly what it is told to."""
