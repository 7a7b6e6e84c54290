"""What a program will take on devices that need not be here, from the program that their compiler makes."""
