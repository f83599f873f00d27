"""The SurVAE family: layers between bijections and VAEs, chains of them, and the models that they make."""
