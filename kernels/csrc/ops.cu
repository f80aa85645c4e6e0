// The same entry points for device memory: one source, compiled a second time.
#include "ops.cpp"
