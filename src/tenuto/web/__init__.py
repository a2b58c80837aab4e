"""`tenuto web`: a page over the same functions as the command line. It reads files and starts `tenuto` processes."""
