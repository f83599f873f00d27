"""The peers, a module each that alone imports its library; a machine need not have all of them."""
