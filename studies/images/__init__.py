"""What?"""
