package e2e

import "syscall"

// dieWithParent makes the kernel kill the child when the test binary dies, whatever killed it.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
