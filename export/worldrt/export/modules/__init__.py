"""Parts of networks that several families have, and what their traces need."""
