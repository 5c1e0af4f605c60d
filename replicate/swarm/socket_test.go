package swarm

import (
	"crypto/tls"
	"net"
	"syscall"
	"testing"
)

// TestNodesKeepTrying has a kernel that can do it hold the option on both ends
// of a connection, and below TLS.
func TestNodesKeepTrying(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	KeepTrying(tls.Client(dialled, &tls.Config{}))
	KeepTrying(accepted)
	for name, c := range map[string]net.Conn{"dialled": dialled, "accepted": accepted} {
		ms, err := rtoMostOf(c.(*net.TCPConn))
		if err == syscall.ENOPROTOOPT {
			t.Skip("this kernel is older than the option")
		}
		if err != nil || ms != int(rtoMost.Milliseconds()) {
			t.Errorf("%s: %d ms, %v", name, ms, err)
		}
	}
}

func rtoMostOf(c *net.TCPConn) (ms int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	raw.Control(func(fd uintptr) { ms, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpRTOMax) })
	return ms, err
}
