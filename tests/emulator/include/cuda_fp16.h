// The emulator brings what this header of CUDA declares.
