package main

import "syscall"

// dieWithParent makes the kernel kill the child when the program dies, whatever killed it.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
