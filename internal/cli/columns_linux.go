package cli

import (
	"os"
	"syscall"
	"unsafe"
)

// columns asks the terminal; 0 for a file that is none (ioctl_tty(2), TIOCGWINSZ).
func columns(file *os.File) int {
	var size struct{ rows, columns, x, y uint16 }
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size))) //nolint:gosec // G103: the kernel fills four shorts
	if errno != 0 {
		return 0
	}
	return int(size.columns)
}
