package agentproto

import (
	"context"
	"net"
	"net/http"
)

// Named has the client ask for another server name than a node's.
func Named(c *Client, name string) {
	c.http.Transport.(*http.Transport).TLSClientConfig.ServerName = name
}

// Dialled has the client make its connections by dial.
func Dialled(c *Client, dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	c.http.Transport.(*http.Transport).DialContext = dial
}
