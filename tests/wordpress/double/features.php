<?php

/**
 * The class in which plugins declare compatibility to WooCommerce.
 */

declare(strict_types=1);

namespace Automattic\WooCommerce\Utilities;

final class FeaturesUtil
{
    /** @var array<string, string> The plugin's file by feature. */
    public static array $declared = [];

    public static function declare_compatibility(string $feature, string $plugin_file, bool $is_compatible): bool
    {
        self::$declared[$feature] = $is_compatible ? $plugin_file : '';
        return true;
    }
}
