<?php

declare(strict_types=1);

namespace PMP\Analytics;

/**
 * A part of the plugin with hooks. Only register() adds them: constructors have no side effects.
 */
interface Registerable
{
    public function register(): void;
}
