"""The simulator behind MiniReel: seekers with a hidden taste, recommenders who find it out.

`world` holds films, people and tastes, `grammar` the words, `conversation` one dialogue, `simulate`
all of them. Stands beside the flow; only the script that makes the bundled data calls it.
"""
