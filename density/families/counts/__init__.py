"""Masses of counts 0, 1, 2, …"""
