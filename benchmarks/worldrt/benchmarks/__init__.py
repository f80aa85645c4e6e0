"""What measures: contenders in processes of their own, interleaved rounds, results with the machine beside them."""
