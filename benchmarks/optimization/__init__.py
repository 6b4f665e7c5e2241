"""What the optimization passes bring: two models trained here, in every form, on the same rows and in the same rounds."""
