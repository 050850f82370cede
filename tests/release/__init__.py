"""What `make release` does, a file for each part of it; nothing here publishes anything
unless it is told to.

    tree      what is released, and its version       ready     what stands in the way
    building  wheel and sdist, the same each time     lock      dependencies, with hashes
    installing  clean environments, and smoke tests   audit     advisories about those
    bom       what the daemon consists of             sums      checksums, a signature
    fixtures  what a version leaves to its successors
"""
