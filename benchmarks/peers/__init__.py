"""The servers that ours is measured against. Each is a program that takes a port.

They speak the same frames, with nothing stored and nothing acknowledged: a connection is named by
``/ws?user=NAME``; a frame with an ``op`` is answered by an ``ok``, and ``subscribe`` is heeded;
``{"to": NAME, "msg": TEXT}`` goes to that user and ``{"topic": NAME, "msg": TEXT}`` to all who
subscribed, with ``from`` added. No compression, and no delay of small packets.
"""
