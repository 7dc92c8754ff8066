# The Node addon. cmake-js gives the headers' folders; a plain cmake run (-DFIRN_ADDON=ON) takes them from node_modules.
if(NOT CMAKE_JS_INC)
  set(CMAKE_JS_INC ${FIRN_NODE_MODULES}/node-api-headers/include ${FIRN_NODE_MODULES}/node-addon-api)
endif()

file(GLOB FIRN_ADDON_SOURCES CONFIGURE_DEPENDS native/addon/*.cc)
add_library(firn SHARED ${FIRN_ADDON_SOURCES} ${CMAKE_JS_SRC})
set_target_properties(firn PROPERTIES PREFIX "" SUFFIX ".node")
target_include_directories(firn SYSTEM PRIVATE ${CMAKE_JS_INC})
# Exceptions live in native/addon alone: node-addon-api speaks them.
target_compile_definitions(firn PRIVATE NAPI_VERSION=8 NAPI_CPP_EXCEPTIONS BUILDING_NODE_EXTENSION)
target_link_libraries(firn PRIVATE firn_native firn_warnings ${CMAKE_JS_LIB})
