"""The viewer behind ``tnet view``: a server for this machine alone, and the pages it serves.

``cohort`` finds what is shown, ``gallery`` reads pixels, ``heat`` paints, ``guard`` decides who
may ask, ``server`` answers. What runs in the browser is in ``static/``; OpenSeadragon, which is
not ours, is put into ``vendor/`` by ``scripts/assets.sh``.
"""
