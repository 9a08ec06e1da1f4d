"""HTTP on the port of the WebSockets: the pages, and twisted.web kept within bounds."""
