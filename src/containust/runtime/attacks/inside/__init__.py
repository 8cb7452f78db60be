"""What a hostile program tries from inside its container, where it runs without anything else of ours.

Lines are those of ``docs/SECURITY.md``. Each attempt runs in a child with a time limit, so that one that ends its
process ends no other.
"""
