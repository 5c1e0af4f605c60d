package agentproto

import "net/http"

// Named has the client ask for another server name than a node's.
func Named(c *Client, name string) {
	c.http.Transport.(*http.Transport).TLSClientConfig.ServerName = name
}
