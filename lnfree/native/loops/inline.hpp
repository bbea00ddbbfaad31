// What a function of one instruction set is made of: out of line it would be one function for all of them.
#pragma once

#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline))
#else
#define INLINE inline
#endif
