package main

import (
	"errors"
	"io/fs"
	"os"
	"sync"
)

// logBytes is how large the log gets before a new one is begun; the last one
// is kept beside it as .1.
const logBytes = 5 << 20

// A logFile is the service's log. It is nobody's error when it cannot be
// written: the agent goes on without.
type logFile struct {
	path string

	mu   sync.Mutex
	file *os.File
	size int64
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, fi.Size()
	return nil
}

// Write appends one record.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(b)) > logBytes {
		l.file.Close() // Windows does not rename what is open
		if err := os.Remove(l.path + ".1"); err == nil || errors.Is(err, fs.ErrNotExist) {
			os.Rename(l.path, l.path+".1")
		}
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

// Close closes the log.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
