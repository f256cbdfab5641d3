"""A drawn world of one to four objects: pictures, captions, questions, what is held out."""
