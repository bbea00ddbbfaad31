// What libtorch's ProcessGroupGloo.hpp names of Gloo, whose own headers are in none of libtorch's packages:
// declarations alone. Objects of these types are made and used inside libtorch; nothing here calls them.
#pragma once
