"""What a GPU is to prove: that results agree, how fast it trains, that memory is what was reckoned.
"""
