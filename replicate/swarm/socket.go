package swarm

import (
	"net"
	"syscall"
	"time"
)

// Congestion asks for BBR on a socket, where the kernel has it: on a line
// that loses packets the usual control leaves most of the bandwidth unused.
// It is the Control of a [net.Dialer] or a [net.ListenConfig], whose accepted
// sockets inherit it. A kernel that refuses leaves the socket as it is.
func Congestion(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// There is nothing to do about an error, and nothing to say here:
		// HasBBR is what tells people.
		_ = syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, tcpCongestion, "bbr")
	})
}

// KeepTrying has a connection between nodes, below TLS or not, try often while
// nothing gets through, where the kernel can (Linux 6.15): the usual wait
// doubles up to two minutes, and a line that was cut for eight seconds lies idle
// for five more. In half a minute without an answer it is given up.
func KeepTrying(c net.Conn) {
	for {
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = below.NetConn()
	}
	socket, ok := c.(syscall.Conn)
	if !ok {
		return // a test's
	}
	if raw, err := socket.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			// As with Congestion, a kernel that refuses leaves it as it is.
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpRTOMax, int(rtoMost/time.Millisecond))
		})
	}
}

const (
	tcpCongestion = 13 // TCP_CONGESTION of linux/tcp.h
	tcpRTOMax     = 44 // TCP_RTO_MAX_MS
)

// rtoMost bounds the wait between two attempts to send something again.
const rtoMost = 2 * time.Second

// HasBBR says whether this process can have BBR.
func HasBBR() bool {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	return syscall.SetsockoptString(fd, syscall.IPPROTO_TCP, tcpCongestion, "bbr") == nil
}
