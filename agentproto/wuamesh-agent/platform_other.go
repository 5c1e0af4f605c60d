//go:build !windows

package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
)

// Here the commands can be read and tested, and nothing more.
var errNotWindows = errors.New("this program is for Windows")

func places() (dir, ini string) {
	dir = filepath.Join(os.TempDir(), "wuamesh-agent")
	return dir, filepath.Join(dir, "wapt-get.ini")
}

func openHost() (host, error)           { return nil, errNotWindows }
func protect(string) error              { return nil }
func lockDir(string) (io.Closer, error) { return nil, errNotWindows }
func dialService() (conn, error)        { return nil, errNoService }

func runFlags(*flag.FlagSet) runner        { return onlyOnWindows }
func installFlags(*flag.FlagSet) runner    { return onlyOnWindows }
func uninstallFlags(*flag.FlagSet) runner  { return onlyOnWindows }
func exitWindowFlags(*flag.FlagSet) runner { return onlyOnWindows }
func configureFlags(*flag.FlagSet) runner  { return onlyOnWindows }
func giveBackFlags(*flag.FlagSet) runner   { return onlyOnWindows }

func onlyOnWindows(context.Context, *console, options, []string) error { return errNotWindows }
