"""``python -m benchmarks.profile_serving``: microseconds of CPU that one request costs on the server, part by part.

The server's own protocols are driven in this process over transports that lead nowhere, 64 connections in turns of the event
loop, as under load; each part is then timed alone, with what comes before and after it taken away. What is not here are the
socket calls and the kernel: ``make bench-serving`` has them within its CPU time per request.

Times are CPU time of the thread, the least of many short repeats: on a busy machine, whatever disturbs one only adds to it.
"""
