package transfer

// stackRoom is what a request needs of a goroutine's stack; a power of two.
const stackRoom = 8 << 10

// growStack gives a goroutine that has just begun the stack that its requests will need, at one go: stacks grow by being
// copied to twice the size, each time with all that is on them, and a blob's goroutine would do that when it is deepest
// in net/http. What it returns is of no use, but keeps the compiler from leaving the room out.
//
//go:noinline
func growStack(at int) byte { //nolint:unparam // see above
	var room [stackRoom]byte
	room[at&(stackRoom-1)] = 1
	return room[(at+1)&(stackRoom-1)]
}
