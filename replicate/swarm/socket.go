package swarm

import "syscall"

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

const tcpCongestion = 13 // TCP_CONGESTION of linux/tcp.h

// HasBBR says whether this process can have BBR.
func HasBBR() bool {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	return syscall.SetsockoptString(fd, syscall.IPPROTO_TCP, tcpCongestion, "bbr") == nil
}
